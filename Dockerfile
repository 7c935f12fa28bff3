FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1
WORKDIR /app
COPY . .
RUN pip install --no-cache-dir --editable . "psycopg[binary]" && useradd --system shop

USER shop
EXPOSE 8000
CMD ["python", "manage.py", "runserver", "0.0.0.0:8000"]
